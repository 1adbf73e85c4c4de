// Builds the pages into a folder: `node build.mjs FOLDER`. The same sources and lock file give the same bytes.
import { cp, mkdir, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
if (!process.argv[2]) throw new Error("node build.mjs FOLDER");
const folder = resolve(process.argv[2]);

await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
await build({
  absWorkingDir: here("."),
  entryPoints: { chat: "src/chat.tsx", docs: "src/docs.tsx" },
  outdir: folder,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "linked",
  logLevel: "warning",
});
for (const name of ["chat.html", "docs.html", "icon.svg"]) await cp(here(`src/${name}`), `${folder}/${name}`);
