import { type FormEvent, useState } from 'react';
import { create, type Session } from './session';

type Props = { session: Session | null; onChange: (session: Session | null) => void };

export function SignInBar({ session, onChange }: Props) {
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);

  async function signIn(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setError('');
    setBusy(true);
    try {
      onChange(await create(String(form.get('email')), String(form.get('password'))));
    } catch (cause) {
      setError(cause instanceof Error ? cause.message : String(cause));
    } finally {
      setBusy(false);
    }
  }

  return (
    <header className="bar">
      <h1>Bulkhead playground</h1>
      <p className="bar-error" role="alert">{error}</p>
      {session ? (
        <div className="bar-session">
          <span role="status">signed in as <strong>{session.email}</strong></span>
          <button type="button" onClick={() => onChange(null)}>Sign out</button>
        </div>
      ) : (
        <form className="bar-session" aria-label="Sign in" onSubmit={signIn}>
          <input name="email" type="email" aria-label="Email" placeholder="Email" autoComplete="username" required />
          <input name="password" type="password" aria-label="Password" placeholder="Password" autoComplete="current-password" required />
          <button type="submit" disabled={busy}>{busy ? 'Signing in…' : 'Sign in'}</button>
        </form>
      )}
    </header>
  );
}
