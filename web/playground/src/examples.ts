// The tabs a first visit opens with; afterwards GraphiQL restores the visitor's own.
export const examples = [
  `# Shows the payload; the bar above signs you in.
mutation SignIn {
  sessionCreate(
    input: {
      email: "owner@acme.test"
      password: "bulkhead-demo"
    }
  ) {
    token
    expiresAt
    errors {
      message
    }
  }
}
`,
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
