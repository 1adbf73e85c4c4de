import { render } from "preact";
import { Routes } from "./docs/routes";
import "./state/theme";
import "./look/look.css";
import "./docs/docs.css";

const place = document.getElementById("page");
place?.replaceChildren();
if (place) render(<Routes />, place);
