/** What an empty chat shows: whom one talks to, and, for the demo model, how to begin. */
import { submit, type } from "../state/composing";
import { isDemo, shortName } from "../state/model";
import { openId } from "../state/router";

/** What the demo model knows to answer. */
const STARTERS = ["Count to 10", "What is 3 plus 4?", "My name is Anna."];

export function Welcome() {
  const name = shortName.value;
  return (
    <div class="welcome">
      <h2>{name ? `Chat with ${name}` : openId.value === null ? "New chat" : "Nothing was said here yet"}</h2>
      {isDemo.value ? <Demo /> : (
        <p class="quiet">What is said is kept on this server. An answer goes on when you leave, and is here when you come back.</p>
      )}
    </div>
  );
}

function Demo() {
  return (
    <>
      <p class="quiet">
        This demo model is a toy that comes with the server. <code>millstream serve --model-id NAME</code> serves a real one.
      </p>
      <p class="starters">
        {STARTERS.map((text) => (
          <button
            key={text}
            type="button"
            onClick={() => {
              type(text);
              void submit();
            }}
          >
            {text}
          </button>
        ))}
      </p>
    </>
  );
}
