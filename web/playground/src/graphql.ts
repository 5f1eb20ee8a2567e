import type { GraphiQLProps } from 'graphiql';
import { type ExecutionResult, getOperationAST, type GraphQLError, parse } from 'graphql';
import { createClient } from 'graphql-ws';

type Fetcher = GraphiQLProps['fetcher'];
type Params = { query: string; variables?: Record<string, unknown>; operationName?: string | null };
type Own = Record<string, string>;
type Answer = ExecutionResult<Record<string, unknown>>;

/** Runs what an editor holds: a subscription over a socket, all else by POST. */
export const fetcher: Fetcher = (params, options) => {
  const headers: Own = options?.headers ?? {};
  const operation = meant(params);
  const named = { ...params, operationName: operation?.name?.value ?? params.operationName };
  return operation?.operation === 'subscription' ? subscription(named, headers) : post(named, headers);
};

/** Post one operation. */
export async function post(params: Params, own: Own = {}) {
  const headers = new Headers({
    'Content-Type': 'application/json',
    Accept: 'application/graphql-response+json, application/json',
  });
  for (const [name, value] of Object.entries(own)) headers.set(name, value);

  const response = await fetch('/graphql', { method: 'POST', headers, body: JSON.stringify(params) });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${response.status}: ${text || response.statusText}`);
  }
}

/** The operation to be run. For a moment after a tab was opened, the editor still names that of the tab before. */
function meant({ query, operationName }: Params) {
  try {
    const document = parse(query);
    return getOperationAST(document, operationName) ?? getOperationAST(document);
  } catch {
    return null; // The server says what is wrong with it.
  }
}

/** The answers of a subscription, over a socket of its own: it goes by the headers of its start. */
function subscription(params: Params, own: Own): AsyncIterable<Answer> {
  const authorization = new Headers(own).get('Authorization');
  const client = createClient({
    url: `${location.origin.replace(/^http/, 'ws')}/graphql/ws`,
    connectionParams: authorization ? { authorization } : {},
    retryAttempts: 0,
  });
  const answers = client.iterate(params) as AsyncIterableIterator<Answer>;
  const iterator = {
    next: () => answers.next().catch((cause) => Promise.reject(readable(cause))),
    return: () => answers.return!(),
  };
  return { [Symbol.asyncIterator]: () => iterator };
}

/** Why a subscription ended: the server's errors, or why the socket was closed. */
function readable(cause: unknown) {
  if (cause instanceof CloseEvent) return new Error(`The socket was closed: ${cause.code} ${cause.reason}`.trim());
  if (Array.isArray(cause)) return (cause as GraphQLError[]).map(({ message, extensions }) => ({ message, extensions }));
  return cause;
}
