import type { CodegenConfig } from '@graphql-codegen/cli';

/** Types each document in src/ by the server's schema: a wrong field does not compile. */
const config: CodegenConfig = {
  schema: '../../schema.graphql',
  documents: 'src/**/*.{ts,tsx}',
  generates: {
    'src/gql/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        useTypeImports: true,
        enumsAsTypes: true,
        strictScalars: true,
        scalars: { ByteSize: 'number', DateTime: 'string', JSON: 'unknown', URL: 'string' },
      },
    },
  },
  ignoreNoDocuments: true,
};

export default config;
