export type Params = { query: string; variables?: unknown; operationName?: string | null };

/** Post one operation. The tab's own headers win over the signed-in token. */
export async function post(params: Params, token?: string, own: Record<string, string> = {}) {
  const headers = new Headers({
    'Content-Type': 'application/json',
    Accept: 'application/graphql-response+json, application/json',
  });
  if (token) headers.set('Authorization', `Bearer ${token}`);
  for (const [name, value] of Object.entries(own)) headers.set(name, value);

  const response = await fetch('/graphql', { method: 'POST', headers, body: JSON.stringify(params) });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${response.status}: ${text || response.statusText}`);
  }
}
