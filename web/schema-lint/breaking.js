// Compares schema.graphql with that of the last release, and fails for what breaks clients unless the CHANGELOG's part since
// then names it by its path, such as `Device.name`. `node breaking.js <repository>`; this one unless told.
import { CriticalityLevel, diff } from '@graphql-inspector/core';
import { buildSchema } from 'graphql';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const repository = process.argv[2] ?? join(import.meta.dirname, '../..');

function git(...args) {
  try {
    return execFileSync('git', ['-C', repository, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return null;
  }
}

/** What the CHANGELOG says above the release's own heading. */
function news(release) {
  const text = readFileSync(join(repository, 'CHANGELOG.md'), 'utf8');
  return text.split(`\n## [${release.replace(/^v/, '')}]`)[0];
}

const release = git('describe', '--tags', '--match', 'v*', '--abbrev=0')?.trim();
const before = release && git('show', `${release}:schema.graphql`);
if (!before) {
  console.log(release ? `${release} has no schema.graphql` : 'Nothing was released: there is no tag v* here to compare with');
  process.exit();
}
const now = readFileSync(join(repository, 'schema.graphql'), 'utf8');
const changes = await diff(buildSchema(before), buildSchema(now));
const named = new Set(news(release).match(/[\w.]+\w/g));
const breaking = changes.filter(({ criticality }) => criticality.level === CriticalityLevel.Breaking);
const unnamed = breaking.filter(({ path }) => !named.has(path));

console.log(`Since ${release}: ${changes.length} changes, ${breaking.length} of them break clients`);
for (const { path, message } of unnamed) console.error(`not in the CHANGELOG: ${path}: ${message}`);
process.exitCode = unnamed.length ? 1 : 0;
