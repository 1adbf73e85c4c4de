/** Scrolling that follows what grows while the reader is at its end, and not any more when not. */
import { useEffect } from "preact/hooks";
import type { RefObject } from "preact";
import { isFollowing } from "../state/following";

const NEAR_PIXELS = 24;

/** box: what scrolls. inner: what grows in it. */
export function useFollowing(box: RefObject<HTMLElement | null>, inner: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const outer = box.current;
    const grown = inner.current;
    if (!outer || !grown) return undefined;
    let before = outer.scrollTop;
    const below = () => outer.scrollHeight - outer.clientHeight - outer.scrollTop;
    const toEnd = () => {
      outer.scrollTop = outer.scrollHeight;
      before = outer.scrollTop;
    };
    const onScroll = () => {
      // Up is the reader's doing; what grows only makes the end farther away.
      if (outer.scrollTop < before && below() > 1) isFollowing.value = false;
      else if (below() <= NEAR_PIXELS) isFollowing.value = true;
      before = outer.scrollTop;
    };
    const grows = new ResizeObserver(() => {
      // What has become so short that its end is seen is followed again.
      if (below() <= 1) isFollowing.value = true;
      if (isFollowing.peek()) toEnd();
      before = outer.scrollTop;
    });
    const stop = isFollowing.subscribe((follows) => {
      if (follows) toEnd();
    });
    outer.addEventListener("scroll", onScroll, { passive: true });
    grows.observe(grown);
    grows.observe(outer);
    return () => {
      stop();
      outer.removeEventListener("scroll", onScroll);
      grows.disconnect();
    };
  }, [box, inner]);
}
