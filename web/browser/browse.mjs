import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

/** As long as a loaded machine may need. */
const PATIENCE = 120_000;

/**
 * Does the work in a browser: `open(path)` gives a page of the site at `base`. Fails if the browser complained, or asked
 * another host for anything.
 */
export async function browse(base, work) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
  const complaints = [];
  const { host } = new URL(base);
  const watch = (url) => /^(data|blob):/.test(url) || new URL(url).host === host || complaints.push(`asked for ${url}`);
  try {
    const context = await browser.newContext({ viewport: { width: 1280, height: 760 }, colorScheme: 'light' });
    context.setDefaultTimeout(PATIENCE);
    context.on('request', (request) => watch(request.url()));
    context.on('console', (line) => line.type() === 'error' && complaints.push(`console: ${line.text()}`));
    context.on('weberror', (error) => complaints.push(`script: ${error.error().stack}`));
    await work(async (path) => {
      const page = await context.newPage();
      page.on('websocket', (socket) => watch(socket.url()));
      await page.goto(new URL(path, base).href);
      return page;
    });
  } catch (error) {
    error.message = [error.message, ...complaints].join('\n');
    throw error;
  } finally {
    await browser.close();
  }
  assert.deepEqual(complaints, []);
}

/** Waits until the condition holds. */
export async function until(what, condition) {
  const began = Date.now();
  while (!(await condition())) {
    assert(Date.now() - began < PATIENCE, `waited until ${what}`);
    await new Promise((resume) => setTimeout(resume, 50));
  }
}
