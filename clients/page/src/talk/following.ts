/** Scrolling that follows what grows while the reader is at its end, and not any more when not. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { RefObject } from "preact";

const NEAR_PIXELS = 24;

/** Whether the reader is at the end. */
export const isFollowing = signal(true);

/** box: what scrolls. inner: what grows in it. */
export function useFollowing(box: RefObject<HTMLElement | null>, inner: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const outer = box.current;
    const grown = inner.current;
    if (!outer || !grown) return undefined;
    let before = outer.scrollTop;
    const onScroll = () => {
      const below = outer.scrollHeight - outer.clientHeight - outer.scrollTop;
      // Up is the reader's doing; what grows only makes the end farther away.
      if (outer.scrollTop < before && below > 1) isFollowing.value = below <= 1;
      else if (below <= NEAR_PIXELS) isFollowing.value = true;
      before = outer.scrollTop;
    };
    const grows = new ResizeObserver(() => {
      if (isFollowing.peek()) outer.scrollTop = outer.scrollHeight;
      before = outer.scrollTop;
    });
    outer.addEventListener("scroll", onScroll, { passive: true });
    grows.observe(grown);
    grows.observe(outer);
    return () => {
      outer.removeEventListener("scroll", onScroll);
      grows.disconnect();
    };
  }, [box, inner]);
}

/** Goes to the end, and follows it from now on. */
export function toEnd(outer: HTMLElement | null): void {
  isFollowing.value = true;
  outer?.scrollTo({ top: outer.scrollHeight });
}
