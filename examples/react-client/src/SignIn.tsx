import type { FormEvent } from 'react';
import { useMutation } from 'urql';
import { graphql } from './gql';

const CREATE_SESSION = graphql(`
  mutation CreateSession($input: SessionCreateInput!) {
    sessionCreate(input: $input) {
      token
      errors {
        message
      }
    }
  }
`);

export function SignIn({ onSignIn }: { onSignIn: (token: string) => void }) {
  const [{ data, error, fetching }, createSession] = useMutation(CREATE_SESSION);

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const input = { email: String(form.get('email')), password: String(form.get('password')) };
    const { data } = await createSession({ input });
    if (data?.sessionCreate.token) onSignIn(data.sessionCreate.token);
  }

  // What can be expected to go wrong is data; the rest is an error.
  const problems = [...(error?.graphQLErrors ?? []), ...(data?.sessionCreate.errors ?? [])];
  return (
    <form className="card sign-in" onSubmit={submit}>
      <h1>Sign in</h1>
      <input name="email" type="email" aria-label="Email" placeholder="Email" autoComplete="username" required />
      <input
        name="password"
        type="password"
        aria-label="Password"
        placeholder="Password"
        autoComplete="current-password"
        required
      />
      <button disabled={fetching}>Sign in</button>
      <p role="alert">{problems.map(({ message }) => message).join(' ') || error?.networkError?.message}</p>
    </form>
  );
}
