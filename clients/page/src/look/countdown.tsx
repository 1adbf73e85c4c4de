/** How many seconds are left; counts by itself. */
import { useEffect, useState } from "preact/hooks";

export function Countdown({ until }: { until: number }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 500);
    return () => clearInterval(timer);
  }, [until]);
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  return <span>{seconds ? `in ${seconds} s` : "now"}</span>;
}
