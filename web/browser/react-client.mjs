// examples/react-client, as somebody uses it: signs in, adds devices and turns their pages, uploads a picture, signs out.
import assert from 'node:assert/strict';
import { browse, until } from './browse.mjs';

const { BASE, EMAIL, PASSWORD, PICTURE } = process.env;

await browse(BASE, async (open) => {
  const page = await open('/');
  await page.getByLabel('Email').fill(EMAIL);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText(EMAIL).waitFor();

  await devices(page);
  await upload(page);

  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
});

/** Seven devices are two pages; what happens to a device is heard. */
async function devices(page) {
  const rows = () => page.locator('tbody tr').allTextContents();
  for (let number = 1; number <= 7; number++) await add(page, `Gate ${number}`);
  // The server does not say when it has begun to listen, so devices are added until it has.
  let newest;
  let count = 0;
  await until('an update is heard', async () => {
    newest = `Door ${(count += 1)}`;
    await add(page, newest);
    return page.getByText(`${newest} is unclaimed.`).waitFor({ timeout: 3000 }).then(() => true, () => false);
  });

  const isFirst = async () => {
    const found = await rows();
    return found.length === 5 && found[0].startsWith(newest);
  };
  await shown(page, 'the first page is full', isFirst);
  const first = await rows();
  await page.getByRole('button', { name: 'Next' }).click();
  await until('the second page is another', async () => {
    const second = await rows();
    return second.length && second.every((row) => !first.includes(row));
  });
  await page.getByRole('button', { name: 'Back' }).click();
  await until('the first page is back', isFirst);
}

async function add(page, name) {
  await page.getByLabel('Name').fill(name);
  await page.getByRole('button', { name: 'Add' }).click();
  await page.locator('tbody').getByText(name, { exact: true }).waitFor();
  assert.match(await page.getByText(/signs in with PIN/).textContent(), /PIN \d{8},/);
}

/** An upload is followed until its picture can be seen. */
async function upload(page) {
  await page.getByLabel('Upload').setInputFiles(PICTURE);
  await page.getByText('Looking at it: succeeded.').waitFor();
  const picture = page.getByAltText('gate.png');
  const isLoaded = ({ complete, naturalWidth }) => complete && naturalWidth > 0;
  await shown(page, 'the thumbnail is loaded', async () => (await picture.count()) > 0 && picture.evaluate(isLoaded));
  const link = await page.getByRole('link', { name: 'gate.png' }).getAttribute('href');
  assert.equal(new URL(link, BASE).host, new URL(BASE).host);
}

/** Waits until it holds. Of two answers on their way at once the older may come last and stay: then the page is loaded again. */
async function shown(page, what, condition) {
  let since = Date.now();
  await until(what, async () => {
    if (Date.now() - since > 30_000) {
      await page.reload();
      since = Date.now();
    }
    return condition();
  });
}
