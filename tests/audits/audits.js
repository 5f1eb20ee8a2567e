// Runs the audits of graphql-http: node audits.js <URL>. Prints each result as JSON.
import dns from "node:dns";
import { auditServer } from "graphql-http";

// A tenant's host need not be known to the system: all of them are here.
const lookup = dns.lookup;
dns.lookup = (_host, ...rest) => lookup("127.0.0.1", ...rest);

const results = await auditServer({ url: process.argv[2] });
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
