// Follows with each client that can; prints what each was told, by client, once each was told as often as is asked.
import { bare, clients, fail } from "./clients.js";

const [, , count, query, variables] = process.argv;
const told = {};
for (const [name, { follow }] of Object.entries(clients)) {
  if (name.startsWith("POST")) continue;
  told[name] = [];
  follow(query, JSON.parse(variables), (result) => {
    const { data, errors } = bare(result);
    if (errors.length > 0) fail(errors);
    told[name].push(data);
    if (Object.values(told).every((all) => all.length >= count)) {
      console.log(JSON.stringify(told));
      process.exit(0);
    }
  });
}
