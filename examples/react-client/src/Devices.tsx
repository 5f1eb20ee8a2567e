import { type FormEvent, useState } from 'react';
import { useMutation, useQuery, useSubscription } from 'urql';
import { graphql } from './gql';

const DEVICES = graphql(`
  query Devices($after: String) {
    tenant {
      id
      devices(first: 5, after: $after) {
        totalCount
        nodes {
          id
          name
          clientId
          state
        }
        pageInfo {
          hasNextPage
          endCursor
        }
      }
    }
  }
`);

const CREATE_DEVICE = graphql(`
  mutation CreateDevice($input: DeviceCreateInput!) {
    deviceCreate(input: $input) {
      device {
        id
        name
        clientId
      }
      pin
      errors {
        message
      }
    }
  }
`);

const DEVICE_UPDATED = graphql(`
  subscription DeviceUpdated {
    deviceUpdated {
      id
      name
      state
    }
  }
`);

export function Devices() {
  // Where the pages up to this one begin: the way back.
  const [starts, setStarts] = useState<(string | null)[]>([null]);
  const [{ data, error, stale }, refresh] = useQuery({ query: DEVICES, variables: { after: starts.at(-1) } });
  const [{ data: news }] = useSubscription({ query: DEVICE_UPDATED }, (_, news) => {
    refresh({ requestPolicy: 'network-only' });
    return news;
  });
  const devices = data?.tenant.devices;

  return (
    <section className="card">
      <h2>
        Devices <small>{devices?.totalCount}</small>
      </h2>
      <p role="alert">{error?.message}</p>
      <table aria-busy={stale}>
        <tbody>
          {devices?.nodes.map(({ id, name, clientId, state }) => (
            <tr key={id}>
              <td>{name}</td>
              <td>
                <code>{clientId}</code>
              </td>
              <td>
                <span className={`state ${state}`}>{state.toLowerCase()}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <nav>
        <button disabled={starts.length === 1} onClick={() => setStarts(starts.slice(0, -1))}>
          Back
        </button>
        <span>Page {starts.length}</span>
        <button
          disabled={!devices?.pageInfo.hasNextPage}
          onClick={() => setStarts([...starts, devices?.pageInfo.endCursor ?? null])}
        >
          Next
        </button>
      </nav>
      <AddDevice />
      <p role="status">{news && `${news.deviceUpdated.name} is ${news.deviceUpdated.state.toLowerCase()}.`}</p>
    </section>
  );
}

function AddDevice() {
  const [{ data, fetching }, createDevice] = useMutation(CREATE_DEVICE);
  const made = data?.deviceCreate;

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    const { data } = await createDevice({ input: { name: String(new FormData(form).get('name')) } });
    if (data?.deviceCreate.device) form.reset();
  }

  return (
    <form onSubmit={submit}>
      <input name="name" aria-label="Name" placeholder="Name of a new device" required />
      <button disabled={fetching}>Add</button>
      {made?.device && (
        <p>
          <code>{made.device.clientId}</code> signs in with PIN <code>{made.pin}</code>, which is shown this once.
        </p>
      )}
      <p role="alert">{made?.errors.map(({ message }) => message).join(' ')}</p>
    </form>
  );
}
