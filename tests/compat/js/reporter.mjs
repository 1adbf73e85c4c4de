// One line of JSON for each test: its name, and its failure if it has one.
export default async function* report(source) {
  for await (const event of source) {
    if (event.type === "test:pass" || event.type === "test:fail") {
      const error = event.data.details.error;
      const failure = error ? String(error.cause?.stack ?? error.cause ?? error) : null;
      yield `${JSON.stringify({ name: event.data.name, failure })}\n`;
    }
  }
}
