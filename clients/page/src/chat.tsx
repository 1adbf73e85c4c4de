import { render } from "preact";
import { App } from "./app";
import "./look/look.css";
import "./look/chat.css";

const place = document.getElementById("page");
place?.replaceChildren();
if (place) render(<App />, place);
