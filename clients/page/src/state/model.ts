/** The name of the model that one talks to. */
import { computed, signal } from "@preact/signals";
import { askJson } from "../wire/ask";
import { Refused, Unreachable, told } from "../wire/errors";
import { beforeRetry, reached } from "./connection";

/** The name that the server gives its model by default, where none was named. */
const DEMO = "millstream-demo";

/** As the server calls it; null until it has said so. */
export const modelName = signal<string | null>(null);

/** The name without the folders or the owner before it. */
export const shortName = computed(() => modelName.value?.split("/").filter(Boolean).at(-1) ?? null);
export const isDemo = computed(() => modelName.value === DEMO);

/** Asks for the name, as often as it takes. */
export async function readModel(): Promise<void> {
  for (let attempt = 0; modelName.value === null; attempt++) {
    try {
      const models = await askJson<{ data: { id: string }[] }>("v1/models");
      reached();
      modelName.value = models.data[0]?.id ?? "";
    } catch (error) {
      const isPassing = error instanceof Unreachable || (error instanceof Refused && error.isPassing);
      if (!isPassing) return;
      await beforeRetry(attempt, told(error));
    }
  }
}
