import { type ChangeEvent, useState } from 'react';
import { useClient, useQuery, useSubscription } from 'urql';
import { graphql } from './gql';
import { upload } from './upload';

const PICTURES = graphql(`
  query Pictures {
    tenant {
      id
      media(first: 6) {
        nodes {
          id
          filename
          state
          failure
          thumbnail
          url
        }
      }
    }
  }
`);

const JOB_UPDATED = graphql(`
  subscription JobUpdated($jobId: ID!) {
    jobUpdated(jobId: $jobId) {
      id
      state
      finishedAt
    }
  }
`);

export function Gallery() {
  const client = useClient();
  const [{ data, error }, refresh] = useQuery({ query: PICTURES });
  const [jobId, setJobId] = useState('');
  const [problem, setProblem] = useState('');

  // The job as it is now, then each change of it: so nothing is missed, however soon it is over.
  const [{ data: news }] = useSubscription(
    { query: JOB_UPDATED, variables: { jobId }, pause: !jobId },
    (_, news) => {
      if (news.jobUpdated.finishedAt) refresh({ requestPolicy: 'network-only' });
      return news;
    },
  );

  async function choose({ target }: ChangeEvent<HTMLInputElement>) {
    const file = target.files?.[0];
    if (!file) return;
    setProblem('');
    try {
      setJobId(await upload(client, file));
    } catch (cause) {
      setProblem(cause instanceof Error ? cause.message : String(cause));
    } finally {
      target.value = '';
    }
  }

  return (
    <section className="card">
      <h2>Media</h2>
      <label className="button">
        Upload
        <input type="file" onChange={choose} />
      </label>
      <p role="alert">{problem || error?.message}</p>
      <p role="status">{news && `Looking at it: ${news.jobUpdated.state.toLowerCase()}.`}</p>
      <div className="gallery">
        {data?.tenant.media.nodes.map(({ id, filename, state, failure, thumbnail, url }) => (
          <figure key={id}>
            {thumbnail ? <img src={thumbnail} alt={filename} /> : <span className={`state ${state}`}>{state}</span>}
            <figcaption title={failure ?? undefined}>{url ? <a href={url}>{filename}</a> : filename}</figcaption>
          </figure>
        ))}
      </div>
    </section>
  );
}
