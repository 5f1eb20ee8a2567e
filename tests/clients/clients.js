// Each client over each transport, behind two functions: `execute(query, variables)` and `follow(query, variables, next)`.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, Observable, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { print } from "graphql";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import dns from "node:dns";
import { createClient as createUrqlClient, fetchExchange, subscriptionExchange } from "urql";
import WebSocket from "ws";

// A tenant's host is a subdomain of localhost, which not every resolver knows.
const lookup = dns.lookup;
dns.lookup = (host, options, done) => {
  if (!host.endsWith(".localhost")) return lookup(host, options, done);
  if (typeof options === "function") return options(null, "127.0.0.1", 4);
  if (options.all) return done(null, [{ address: "127.0.0.1", family: 4 }]);
  return done(null, "127.0.0.1", 4);
};

const { HOST, TOKEN } = process.env;
const url = `http://${HOST}/graphql`;
const authorization = `Bearer ${TOKEN}`;
const headers = { authorization };

const ws = () =>
  createWsClient({
    url: `ws://${HOST}/graphql/ws`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization },
    retryAttempts: 0,
    // One that closes between two operations may, in this client, take the second along: urql waits for its answer for ever.
    lazyCloseTimeout: 60_000,
  });
const sse = () => createSseClient({ url, headers, retryAttempts: 0 });

// graphql-ws and graphql-sse have the same interface.
const plain = (client) => ({
  execute: (query, variables) =>
    new Promise((resolve, reject) => {
      let result;
      client.subscribe(
        { query, variables },
        { next: (value) => (result = value), error: reject, complete: () => resolve(result) },
      );
    }),
  follow: (query, variables, next) =>
    client.subscribe({ query, variables }, { next, error: fail, complete: () => fail("complete") }),
});

const posting = {
  execute: async (query, variables) => {
    const response = await fetch(url, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: JSON.stringify({ query, variables }),
    });
    return response.json();
  },
};

const apollo = (link) => {
  const client = new ApolloClient({
    link,
    cache: new InMemoryCache(),
    defaultOptions: {
      query: { errorPolicy: "all", fetchPolicy: "no-cache" },
      mutate: { errorPolicy: "all", fetchPolicy: "no-cache" },
    },
  });
  const result = ({ data, error }) => ({ data, errors: error?.errors });
  return {
    execute: async (query, variables) => {
      const document = gql(query);
      return document.definitions[0].operation === "mutation"
        ? result(await client.mutate({ mutation: document, variables }))
        : result(await client.query({ query: document, variables }));
    },
    follow: (query, variables, next) =>
      client
        .subscribe({ query: gql(query), variables, fetchPolicy: "no-cache" })
        .subscribe({ next, error: fail, complete: () => fail("complete") }),
  };
};

const apolloSseLink = (client) =>
  new ApolloLink(
    ({ query, variables }) =>
      new Observable((sink) => client.subscribe({ query: print(query), variables }, sink)),
  );

const urql = (options) => {
  const client = createUrqlClient({ url, preferGetMethod: false, fetchOptions: { headers }, ...options });
  const result = ({ data, error }) => ({ data, errors: error?.graphQLErrors });
  return {
    execute: async (query, variables) =>
      result(
        await (query.startsWith("mutation")
          ? client.mutation(query, variables)
          : client.query(query, variables, { requestPolicy: "network-only" })
        ).toPromise(),
      ),
    follow: (query, variables, next) => client.subscription(query, variables).subscribe((told) => next(result(told))),
  };
};

const urqlWs = (client) =>
  subscriptionExchange({
    enableAllOperations: true,
    forwardSubscription: ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: client.subscribe({ query, variables }, sink) }),
    }),
  });

export const clients = {
  "POST fetch": posting,
  "POST apollo": apollo(new HttpLink({ uri: url, headers })),
  "POST urql": urql({ exchanges: [fetchExchange] }),
  "WS graphql-ws": plain(ws()),
  "WS apollo": apollo(new GraphQLWsLink(ws())),
  "WS urql": urql({ exchanges: [urqlWs(ws())] }),
  "SSE graphql-sse": plain(sse()),
  "SSE apollo": apollo(apolloSseLink(sse())),
  "SSE urql": urql({ exchanges: [fetchExchange], fetchSubscriptions: true }),
};

// What is said alike by all of them: a client may add __typename, or turn null into nothing.
export const bare = ({ data, errors }) => ({
  data: JSON.parse(JSON.stringify(data ?? null), (key, value) => (key === "__typename" ? undefined : value)),
  errors: (errors ?? []).map(({ message, path, extensions }) => ({ message, path, extensions })),
});

export function fail(error) {
  console.error(error);
  process.exit(1);
}
