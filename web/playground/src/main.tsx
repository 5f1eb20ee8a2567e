import 'graphiql/setup-workers/vite';
// Not graphiql/style.css: that one repeats Monaco's styles and embeds web fonts.
import '@graphiql/react/style.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-explorer/style.css';
import '@graphiql/plugin-history/style.css';
import 'graphiql/graphiql.css';
import './style.css';

import { explorerPlugin } from '@graphiql/plugin-explorer';
import { GraphiQL, HISTORY_PLUGIN } from 'graphiql';
import { useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { examples } from './examples';
import { type Params, post } from './graphql';
import { load, revoke, save, type Session } from './session';
import { SignInBar } from './SignInBar';

const plugins = [HISTORY_PLUGIN, explorerPlugin()];

function App() {
  const [session, setSession] = useState(load);
  const token = session?.token;
  // A new fetcher makes GraphiQL read the schema again, as the new viewer.
  const fetcher = useMemo(
    () => (params: Params, options?: { headers?: Record<string, string> }) =>
      post(params, token, options?.headers),
    [token],
  );

  function change(next: Session | null) {
    if (session && !next) void revoke(session);
    save(next);
    setSession(next);
  }

  return (
    <>
      <SignInBar session={session} onChange={change} />
      <main>
        {/* Headers may hold tokens, so they are never written to localStorage. */}
        <GraphiQL fetcher={fetcher} plugins={plugins} defaultTabs={examples} shouldPersistHeaders={false} />
      </main>
    </>
  );
}

createRoot(document.getElementById('root')!).render(<App />);
