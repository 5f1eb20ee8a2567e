import { graphql } from 'react-relay';

// A list within a list: its further pages are those of one device.
export const uploads = graphql`
  fragment Uploads_device on Device
  @argumentDefinitions(count: { type: "Int", defaultValue: 3 }, cursor: { type: "String" })
  @refetchable(queryName: "UploadsPageQuery") {
    media(first: $count, after: $cursor) @connection(key: "Uploads_media") {
      edges {
        node {
          id
          filename
          thumbnail(size: SMALL)
          uploadedBy {
            __typename
            ... on Member {
              id
              avatar {
                id
                url
              }
            }
            ... on Device {
              id
            }
          }
        }
      }
    }
  }
`;
