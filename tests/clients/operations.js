// Sends each operation of standard input by each client; prints the answers, by client.
import { readFileSync } from "node:fs";
import { bare, clients, fail } from "./clients.js";

// Where nothing is left that could answer, node ends without a word.
let at;
process.on("exit", () => {
  if (process.exitCode) console.error(`at ${at}`);
});

try {
  const operations = JSON.parse(readFileSync(0, "utf8"));
  const answers = {};
  for (const [name, { execute }] of Object.entries(clients)) {
    answers[name] = [];
    for (const { query, variables } of operations) {
      at = `${name}: ${query}`;
      answers[name].push(bare(await execute(query, variables)));
    }
  }
  console.log(JSON.stringify(answers));
  process.exit(0);
} catch (error) {
  fail(error);
}
