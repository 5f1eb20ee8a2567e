import type { Client, OperationResult } from 'urql';
import { graphql } from './gql';

const CREATE_UPLOAD = graphql(`
  mutation CreateUpload($input: MediaCreateUploadInput!) {
    mediaCreateUpload(input: $input) {
      media {
        id
      }
      upload {
        method
        url
        headers {
          name
          value
        }
      }
      errors {
        message
      }
    }
  }
`);

const COMPLETE_UPLOAD = graphql(`
  mutation CompleteUpload($input: MediaCompleteUploadInput!) {
    mediaCompleteUpload(input: $input) {
      media {
        id
        state
      }
      job {
        id
      }
      errors {
        message
      }
    }
  }
`);

/** Asks for a place, sends the bytes there, and says that they are all there: the id of the job that looks at them. */
export async function upload(client: Client, file: File) {
  const input = { resourceType: 'photo', filename: file.name, contentType: file.type, size: file.size };
  const made = expected(settled(await client.mutation(CREATE_UPLOAD, { input })).mediaCreateUpload);
  const { url, method, headers } = made.upload!;
  const sent = await fetch(url, { method, headers: headers.map(({ name, value }) => [name, value]), body: file });
  if (!sent.ok) throw new Error(`The upload was refused: ${sent.status}`);

  const mediaId = made.media!.id;
  const done = settled(await client.mutation(COMPLETE_UPLOAD, { input: { mediaId } })).mediaCompleteUpload;
  return expected(done).job!.id;
}

function settled<Data>({ data, error }: OperationResult<Data>): Data {
  if (!data) throw error ?? new Error('There was no answer.');
  return data;
}

/** The payload of a mutation that did not fail: all its fields are there then. */
function expected<Payload extends { errors: { message: string }[] }>(payload: Payload): Payload {
  if (payload.errors.length) throw new Error(payload.errors.map(({ message }) => message).join(' '));
  return payload;
}
