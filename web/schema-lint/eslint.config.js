// The rules of schema.graphql: Relay's, and how things are named, described and ordered.
import graphql from '@graphql-eslint/eslint-plugin';
import { fileURLToPath } from 'node:url';

const schema = fileURLToPath(new URL('../../schema.graphql', import.meta.url));
const rule = (name, options) => [`@graphql-eslint/${name}`, ['error', options].filter(Boolean)];

export default [
  {
    files: ['**/schema.graphql'],
    languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema } } },
    linterOptions: { noInlineConfig: true },
    plugins: { '@graphql-eslint': graphql },
    rules: {
      ...graphql.configs['flat/schema-recommended'].rules,
      ...graphql.configs['flat/schema-relay'].rules,
      ...Object.fromEntries([
        // Lists are read forwards.
        rule('relay-arguments', { includeBoth: false }),
        // Connections have `nodes` beside `edges`.
        rule('relay-edge-types', { listTypeCanWrapOnlyEdgeType: false }),
        rule('strict-id-in-types', {
          exceptions: {
            // What is only ever part of an answer, and no object that could be asked for again.
            suffixes: ['Payload', 'Connection', 'Edge', 'Error'],
            types: ['FieldChange', 'HttpHeader', 'PageInfo', 'Quota', 'Reverted', 'ScheduleKind', 'Snapshot', 'SystemActor', 'UploadTarget', 'Viewer'],
          },
        }),
        rule('require-description', {
          types: true,
          rootField: true,
          DirectiveDefinition: true,
          EnumValueDefinition: true,
          FieldDefinition: true,
          InputValueDefinition: true,
          // GraphQL's own directives, which async-graphql describes without their arguments.
          ignoredSelectors: ['[type=InputValueDefinition][parent.kind=DirectiveDefinition]'],
        }),
        rule('alphabetize', {
          fields: ['ObjectTypeDefinition', 'InterfaceTypeDefinition', 'InputObjectTypeDefinition'],
          arguments: ['FieldDefinition', 'DirectiveDefinition'],
          values: true,
        }),
        rule('input-name'),
        rule('no-scalar-result-type-on-mutation'),
        rule('require-deprecation-date'),
      ]),
    },
  },
];
