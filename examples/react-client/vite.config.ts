import { defineConfig } from 'vite';

/** Where Bulkhead listens. The host that the browser asked for is passed on: it says which tenant is meant. */
const target = process.env.BULKHEAD ?? 'http://127.0.0.1:8080';
const proxy = {
  '/graphql': { target, ws: true },
  '/uploads': { target },
  '/media': { target },
};

export default defineConfig({
  server: { host: '127.0.0.1', proxy },
  preview: { host: '127.0.0.1', proxy },
});
