// What all suites share: where the servers are, one tool, and `test`, which only prints the names of
// the tests where LIST_TESTS is set.
import nodeTest from "node:test";
import { z } from "zod";

const list = (name) => console.log(JSON.stringify({ name, failure: null }));
export const test = process.env.LIST_TESTS ? list : nodeTest;

export const SCRIPTED = process.env.SCRIPTED_URL;
export const DEMO = process.env.DEMO_URL;
export const KEY = process.env.OPENAI_API_KEY;
export const MODEL = "millstream-demo";
export const COUNTED = "1\n2\n3\n4\n5";

export const user = (content) => [{ role: "user", content }];

export const Person = z.object({
  name: z.string(),
  age: z.number().int(),
  friends: z.array(z.string()),
});
export const ANN = { name: "Ann", age: 30, friends: ["Bob", "Cid"] };

export const ADD = {
  type: "function",
  function: {
    name: "add",
    description: "Adds two numbers.",
    parameters: {
      type: "object",
      properties: { a: { type: "number" }, b: { type: "number" } },
      required: ["a", "b"],
    },
  },
};
