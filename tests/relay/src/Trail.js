import { graphql } from 'react-relay';

// From the oldest on: the list's last page first, and the pages before it.
export const query = graphql`
  query TrailQuery($filter: ChangeFilter) {
    tenant {
      ...Trail_tenant @arguments(filter: $filter)
    }
  }
`;

export const trail = graphql`
  fragment Trail_tenant on Tenant
  @argumentDefinitions(
    count: { type: "Int", defaultValue: 10 }
    cursor: { type: "String" }
    filter: { type: "ChangeFilter" }
  )
  @refetchable(queryName: "TrailPageQuery") {
    changes(last: $count, before: $cursor, filter: $filter) @connection(key: "Trail_changes") {
      edges {
        node {
          id
          at
          action
          subjectType
          subject {
            __typename
            id
          }
          fields {
            name
            before
            after
          }
        }
      }
    }
  }
`;

// Both ways at once.
export const members = graphql`
  fragment Trail_members on Tenant
  @argumentDefinitions(
    first: { type: "Int" }
    after: { type: "String" }
    last: { type: "Int" }
    before: { type: "String" }
  )
  @refetchable(queryName: "TrailMembersQuery") {
    members(first: $first, after: $after, last: $last, before: $before) @connection(key: "Trail_members") {
      edges {
        node {
          id
          email
        }
      }
    }
  }
`;
