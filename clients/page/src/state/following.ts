/** Whether the page follows what grows: while the reader is at the end, and from when something is sent. */
import { signal } from "@preact/signals";

export const isFollowing = signal(true);
