import { useMutation, useQuery } from 'urql';
import { graphql } from './gql';

const VIEWER = graphql(`
  query Viewer {
    tenant {
      id
      name
    }
    viewer {
      actor {
        ... on Member {
          id
          email
        }
      }
    }
  }
`);

const REVOKE_SESSION = graphql(`
  mutation RevokeSession {
    sessionRevoke(input: {}) {
      revokedCount
    }
  }
`);

export function Viewer({ onSignOut }: { onSignOut: () => void }) {
  const [{ data }] = useQuery({ query: VIEWER });
  const [, revokeSession] = useMutation(REVOKE_SESSION);
  const actor = data?.viewer?.actor;

  return (
    <header>
      <h1>{data?.tenant.name}</h1>
      <span>{actor && 'email' in actor && actor.email}</span>
      <button onClick={() => revokeSession({}).then(onSignOut)}>Sign out</button>
    </header>
  );
}
