import { post } from './graphql';

export type Session = { email: string; token: string; expiresAt: string | null };

const KEY = 'bulkhead.session';

const SESSION_CREATE = `mutation SessionCreate($email: String!, $password: String!) {
  sessionCreate(input: {email: $email, password: $password}) {
    token
    expiresAt
    errors { message }
  }
}`;

/** The session lives in sessionStorage only: it ends with this browser tab. */
export function load(): Session | null {
  try {
    const session: Session | null = JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
    const expired = session?.expiresAt && Date.parse(session.expiresAt) <= Date.now();
    return expired ? null : session;
  } catch {
    return null;
  }
}

export function save(session: Session | null) {
  if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
  else sessionStorage.removeItem(KEY);
}

/** Create a session, or throw an error whose message is fit to show. */
export async function create(email: string, password: string): Promise<Session> {
  const { data, errors } = await post({ query: SESSION_CREATE, variables: { email, password } });
  const payload = data?.sessionCreate;
  if (payload?.token) return { email, token: payload.token, expiresAt: payload.expiresAt ?? null };

  const problems: { message: string }[] = [...(errors ?? []), ...(payload?.errors ?? [])];
  throw new Error(problems.map((problem) => problem.message).join(' ') || 'Sign-in failed.');
}

/** End the session on the server too. It is forgotten here whatever the answer is. */
export async function revoke(session: Session) {
  const query = 'mutation SessionRevoke { sessionRevoke(input: {}) { revokedCount } }';
  await post({ query }, { Authorization: `Bearer ${session.token}` }).catch(() => {});
}
