import { graphql } from 'react-relay';

// The page begins at the root, and goes on by refetching the tenant as a node.
export const query = graphql`
  query DevicesQuery($count: Int!, $cursor: String, $filter: DeviceFilter, $order: DeviceOrder) {
    tenant {
      name
      ...Devices_tenant @arguments(count: $count, cursor: $cursor, filter: $filter, order: $order)
    }
  }
`;

export const devices = graphql`
  fragment Devices_tenant on Tenant
  @argumentDefinitions(
    count: { type: "Int" }
    cursor: { type: "String" }
    filter: { type: "DeviceFilter" }
    order: { type: "DeviceOrder" }
  )
  @refetchable(queryName: "DevicesPageQuery") {
    devices(first: $count, after: $cursor, filter: $filter, orderBy: $order)
      @connection(key: "Devices_devices", filters: ["filter", "orderBy"]) {
      totalCount
      edges {
        node {
          id
          name
          state
          ...Uploads_device
        }
      }
    }
  }
`;

export const created = graphql`
  mutation DevicesCreateMutation($input: DeviceCreateInput!, $connections: [ID!]!) {
    deviceCreate(input: $input) {
      device @prependNode(connections: $connections, edgeTypeName: "DeviceEdge") {
        id
        name
      }
      pin
      errors {
        __typename
        code
        message
        field
      }
    }
  }
`;

export const updated = graphql`
  subscription DevicesSubscription($device: ID) {
    deviceUpdated(deviceId: $device) {
      id
      name
      state
    }
  }
`;
