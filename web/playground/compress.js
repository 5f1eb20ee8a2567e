// Writes a .br and a .gz beside each file of dist/: the server sends them as they are and compresses nothing itself.
// With --check it only compares: what a zlib makes of a file may differ from the next one's, what is in it may not.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';

const dist = new URL('dist/', import.meta.url);
const formats = [
  ['br', brotliCompressSync, brotliDecompressSync],
  ['gz', (bytes) => gzipSync(bytes, { level: 9 }), gunzipSync],
];

for (const name of readdirSync(dist).filter((name) => !/\.(br|gz)$/.test(name))) {
  const bytes = readFileSync(new URL(name, dist));
  for (const [ext, pack, unpack] of formats) {
    const packed = new URL(`${name}.${ext}`, dist);
    if (!process.argv.includes('--check')) writeFileSync(packed, pack(bytes));
    else if (!unpack(readFileSync(packed)).equals(bytes)) throw new Error(`${name}.${ext} is not ${name}`);
  }
}
