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
import { useState } from 'react';
import { createRoot } from 'react-dom/client';
import { examples } from './examples';
import { fetcher } from './graphql';
import { FillAuthorization, storage } from './headers';
import { load, revoke, save, type Session } from './session';
import { SignInBar } from './SignInBar';

const plugins = [HISTORY_PLUGIN, explorerPlugin()];

function App() {
  const [session, setSession] = useState(load);

  function change(next: Session | null) {
    if (session && !next) void revoke(session);
    save(next);
    setSession(next);
  }

  return (
    <>
      <SignInBar session={session} onChange={change} />
      <main>
        <GraphiQL
          fetcher={fetcher}
          plugins={plugins}
          defaultTabs={examples}
          storage={storage}
          shouldPersistHeaders={false}
        >
          <FillAuthorization token={session?.token} />
        </GraphiQL>
      </main>
    </>
  );
}

createRoot(document.getElementById('root')!).render(<App />);
