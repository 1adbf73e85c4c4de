import type { Table } from "./blocks";
import { InlineView, type Surroundings } from "./inline_view";

/** A table in a box of its own that scrolls sideways. Rows that were shown are left alone. */
export class TableView {
  readonly kind = "table";
  readonly element = document.createElement("div");
  #table = document.createElement("table");
  #head = document.createElement("thead");
  #body = document.createElement("tbody");
  #header: InlineView[] = [];
  #rows: { element: HTMLElement; cells: InlineView[] }[] = [];
  #base = 0;

  constructor(readonly surroundings: Surroundings) {
    this.element.className = "table";
    this.element.tabIndex = 0;
    this.#table.append(this.#head, this.#body);
    this.element.append(this.#table);
  }

  update(table: Table): void {
    if (this.#header.length !== table.header.length) {
      this.#head.replaceChildren();
      this.#header = this.#cells(this.#head, "th", table);
    }
    table.header.forEach((text, column) => this.#header[column]!.update(text, false));
    this.#rows.splice(0, table.base - this.#base);
    this.#base = table.base;
    table.rows.forEach((texts, place) => {
      this.#rows[place] ??= this.#row(table);
      texts.forEach((text, column) => this.#rows[place]!.cells[column]!.update(text, false));
    });
    for (const row of this.#rows.splice(table.rows.length)) row.element.remove();
  }

  #row(table: Table): { element: HTMLElement; cells: InlineView[] } {
    const cells = this.#cells(this.#body, "td", table);
    return { element: this.#body.lastElementChild as HTMLElement, cells };
  }

  #cells(part: HTMLElement, name: "th" | "td", table: Table): InlineView[] {
    const row = part.appendChild(document.createElement("tr"));
    return table.alignments.map((alignment) => {
      const cell = row.appendChild(document.createElement(name));
      if (name === "th") cell.setAttribute("scope", "col");
      if (alignment) cell.className = alignment;
      return new InlineView(cell, this.surroundings);
    });
  }
}
