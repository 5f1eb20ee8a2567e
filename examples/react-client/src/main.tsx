import './style.css';

import { StrictMode, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Provider } from 'urql';
import { connect } from './client';
import { Devices } from './Devices';
import { Gallery } from './Gallery';
import { SignIn } from './SignIn';
import { Viewer } from './Viewer';

const TOKEN = 'token';

function App() {
  const [token, setToken] = useState(() => sessionStorage.getItem(TOKEN));
  // Another caller, another client: nothing of the one before stays in its cache.
  const client = useMemo(() => connect(token, signOut), [token]);

  function signIn(token: string) {
    sessionStorage.setItem(TOKEN, token);
    setToken(token);
  }

  function signOut() {
    sessionStorage.removeItem(TOKEN);
    setToken(null);
  }

  return (
    <Provider value={client}>
      {token ? (
        <>
          <Viewer onSignOut={signOut} />
          <main>
            <Devices />
            <Gallery />
          </main>
        </>
      ) : (
        <SignIn onSignIn={signIn} />
      )}
    </Provider>
  );
}

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
