// The tabs a first visit opens with; afterwards GraphiQL restores the visitor's own.
export const examples = [
  `# Who am I, and what is here?
query Overview {
  viewer {
    actor {
      __typename
      ... on Member {
        email
        roles {
          name
        }
      }
    }
    permissions
  }
  tenant {
    slug
    name
    devices(first: 5) {
      nodes {
        id
        name
        clientId
        state
      }
    }
    media(first: 5) {
      nodes {
        filename
        state
        url
      }
    }
  }
}
`,
  `# A new device. Its PIN is shown this once.
mutation AddDevice {
  deviceCreate(input: { name: "Gate" }) {
    device {
      id
      name
      clientId
    }
    pin
    errors {
      code
      message
    }
  }
}
`,
  `# Every change of a device, as it happens: leave this running
# and add a device in another window.
subscription WatchDevices {
  deviceUpdated {
    id
    name
    state
    version
  }
}
`,
  `# The trail: who changed what, and when.
query Trail {
  tenant {
    changes(first: 10) {
      nodes {
        at
        action
        subjectType
        actor {
          __typename
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
`,
].map((query) => ({ query }));
