// The playground, as a developer uses it: signs in, runs the examples, looks at the schema and the history, signs out.
import assert from 'node:assert/strict';
import { browse, until } from './browse.mjs';

const { BASE, EMAIL, PASSWORD, SCREENSHOT } = process.env;

await browse(BASE, async (open) => {
  const page = await open('/graphql');
  await signIn(page);
  await holdsToken(page);

  const overview = await run(page, 'Overview');
  assert.equal(overview.data.viewer.actor.email, EMAIL);
  await shows(page, overview.data.tenant.slug);
  if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT });

  const added = await run(page, 'AddDevice');
  assert.match(added.data.deviceCreate.pin, /^\d{8}$/);
  await shows(page, added.data.deviceCreate.pin);

  await subscription(await open('/graphql'), page);
  await panels(page);
  await keepsNoToken(page);
  await signOut(page);
});

async function signIn(page) {
  await page.getByLabel('Email').fill(EMAIL);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText(`signed in as ${EMAIL}`).waitFor();
}

/** The headers editor is filled in every tab. */
async function holdsToken(page) {
  await page.getByRole('button', { name: 'Headers' }).click();
  for (const name of ['Trail', 'Overview']) {
    await select(page, name);
    await page.locator('.graphiql-editor-tool').getByText('"Bearer bhs_').waitFor();
  }
  await page.getByRole('button', { name: 'Hide editor tools' }).click();
}

async function select(page, name) {
  await page.getByRole('tab', { name }).click();
  await page.locator('.graphiql-query-editor').getByText(name, { exact: true }).waitFor();
}

/** Runs the example of this name: the answer. */
async function run(page, name) {
  await select(page, name);
  const [answer] = await Promise.all([
    page.waitForResponse(
      (response) => response.url().endsWith('/graphql') && response.request().postData()?.includes(` ${name} `),
    ),
    page.getByRole('button', { name: 'Execute query' }).click(),
  ]);
  return answer.json();
}

/** Waits until the page shows this in its answer. */
async function shows(page, text) {
  await page.locator('.result-window').getByText(text).first().waitFor();
}

/** What another page does is shown by one that watches. */
async function subscription(watcher, page) {
  await signIn(watcher);
  await select(watcher, 'WatchDevices');
  const socket = watcher.waitForEvent('websocket');
  await watcher.getByRole('button', { name: 'Execute query' }).click();
  assert.equal(new URL((await socket).url()).pathname, '/graphql/ws');
  // The server does not say when it has begun to listen, so devices are added until it has.
  await until('the subscription shows a device', async () => {
    const { id } = (await run(page, 'AddDevice')).data.deviceCreate.device;
    return watcher.locator('.result-window').getByText(id).waitFor({ timeout: 3000 }).then(() => true, () => false);
  });
  await watcher.getByRole('button', { name: 'Stop query' }).click();
  await until('its socket is closed', async () => (await socket).isClosed());
  await watcher.close();
}

/** Documentation, explorer and history know the schema and what was run. */
async function panels(page) {
  const panel = page.locator('.graphiql-plugin');
  await select(page, 'Overview');
  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  await panel.getByText('Query', { exact: true }).click();
  await panel.getByText('Everything that can be read.').waitFor();
  await page.getByRole('button', { name: 'Show GraphiQL Explorer' }).click();
  await panel.getByText('tenant', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Show History' }).click();
  await panel.getByText('Overview').waitFor();
}

/** Nothing that outlives the page's tab holds a token. */
async function keepsNoToken(page) {
  await until('the history is kept', () => page.evaluate(() => 'graphiql:queries' in localStorage));
  const kept = await page.evaluate(() => JSON.stringify(localStorage));
  assert(!kept.includes('bhs_'), kept);
}

async function signOut(page) {
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  const overview = await run(page, 'Overview');
  assert.equal(overview.data?.viewer ?? null, null);
}
