// Stands in for Prettier's babel and estree plugins (0.5 MB), which GraphiQL
// would load only to indent the JSON of the variables and headers editors.
import { applyEdits, format } from 'jsonc-parser';

type Node = { text: string };

export const parsers = {
  jsonc: {
    astFormat: 'jsonc-text',
    parse: (text: string): Node => ({ text }),
    locStart: () => 0,
    locEnd: (node: Node) => node.text.length,
  },
};

export const printers = {
  'jsonc-text': {
    print: ({ node: { text } }: { node: Node }) =>
      applyEdits(text, format(text, undefined, { insertSpaces: true, tabSize: 2 })),
  },
};
