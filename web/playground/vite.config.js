import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const jsonc = fileURLToPath(new URL('src/jsonc.ts', import.meta.url));

// Monaco features of no use in a GraphQL editor; each is a side-effect import.
const unused = new RegExp(
  '/contrib/(codeAction|codelens|colorPicker|diffEditorBreadcrumbs|dropOrPasteInto|inlayHints' +
    '|inlineCompletions|inlineEdits?|inlineProgress|linkedEditing|rename|sectionHeaders|semanticTokens|stickyScroll)/' +
    '|/contrib/suggest/browser/suggestInlineCompletions|/diffEditor\\.contribution',
);

const trimMonaco = {
  name: 'trim-monaco',
  enforce: 'pre',
  resolveId: (source, importer) =>
    importer?.endsWith('/vs/editor/editor.all.js') && unused.test(source) ? '\0empty' : null,
  load: (id) => (id === '\0empty' ? '' : null),
};

export default defineConfig({
  base: '/graphql/assets/',
  plugins: [trimMonaco],
  resolve: {
    alias: {
      'prettier/parser-babel': jsonc,
      'prettier/plugins/estree': jsonc,
      // The same plugin under its old name.
      'prettier/parser-graphql': 'prettier/plugins/graphql',
    },
  },
  // ES modules: the GraphQL worker loads its formatter with a dynamic import.
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    assetsDir: '',
    // No data: URLs for our own files, so that the CSP can stay tight.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: 'licenses.md' },
    chunkSizeWarningLimit: 4000,
    rolldownOptions: {
      onwarn: (warning, warn) => warning.code === 'MODULE_LEVEL_DIRECTIVE' || warn(warning),
    },
  },
});
