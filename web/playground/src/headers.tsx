import { useGraphiQL } from '@graphiql/react';
import { useEffect } from 'react';

/** Values that this page wrote: those it may also replace or take away. */
const written = new Set<unknown>();

/** Fills the Authorization of the headers editor, in whatever tab is open. One that the visitor wrote stays. */
export function FillAuthorization({ token }: { token?: string }) {
  const editor = useGraphiQL((state) => state.headerEditor);
  useEffect(() => {
    if (!editor) return;
    const fill = () => {
      if (!editor.getModel() || editor.hasTextFocus()) return; // A visitor who is typing is left alone.
      const filled = withToken(editor.getValue(), token);
      if (filled !== editor.getValue()) editor.setValue(filled);
    };
    fill();
    // Tabs and the history put their own text there. Only when all have heard of it may it change again: Monaco's workers
    // would hear of the two changes in the wrong order.
    const listener = editor.onDidChangeModelContent(() => queueMicrotask(fill));
    return () => listener.dispose();
  }, [editor, token]);
  return null;
}

function withToken(text: string, token?: string) {
  const { Authorization: current, ...others } = parsed(text);
  const theirs = current !== undefined && !written.has(current);
  const value = token && `Bearer ${token}`;
  if (theirs || current === value) return text;
  if (value) written.add(value);
  const headers = value ? { Authorization: value, ...others } : others;
  return Object.keys(headers).length ? JSON.stringify(headers, null, 2) : '';
}

/** Text that cannot be read counts as the visitor's. */
function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text.trim() || '{}') ?? {};
  } catch {
    return { Authorization: text };
  }
}

/** What GraphiQL keeps, without the headers that its history would keep as well: they hold tokens. */
export const storage = {
  get length() {
    return localStorage.length;
  },
  getItem: (key: string) => localStorage.getItem(key),
  removeItem: (key: string) => localStorage.removeItem(key),
  clear: () => localStorage.clear(),
  setItem(key: string, value: string) {
    const isHistory = /:(queries|favorites)$/.test(key);
    localStorage.setItem(key, isHistory ? withoutHeaders(value) : value);
  },
};

function withoutHeaders(history: string) {
  return JSON.stringify(JSON.parse(history), (key, value) => (key === 'headers' ? undefined : value));
}
