import { createClient } from 'graphql-ws';
import { cacheExchange, Client, fetchExchange, mapExchange, subscriptionExchange } from 'urql';

/** A client of the tenant at whose host this page is, for whoever has the token: queries by POST, subscriptions over a socket. */
export function connect(token: string | null, onUnauthenticated: () => void) {
  const authorization = token ? { authorization: `Bearer ${token}` } : undefined;
  const socket = createClient({
    url: `${location.origin.replace(/^http/, 'ws')}/graphql/ws`,
    connectionParams: authorization,
  });
  return new Client({
    url: '/graphql',
    preferGetMethod: false,
    fetchOptions: { headers: authorization },
    exchanges: [
      mapExchange({
        onError({ graphQLErrors }) {
          const isOver = graphQLErrors.some(({ extensions }) => extensions.code === 'UNAUTHENTICATED');
          if (token && isOver) onUnauthenticated();
        },
      }),
      cacheExchange,
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
          subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query: query!, variables }, sink) }),
        }),
      }),
    ],
  });
}
