/** Small drawings for buttons; names are the buttons' own. */
import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      {children}
    </svg>
  );
}

export const Plus = () => <Icon><path d="M12 5v14M5 12h14" /></Icon>;
export const Menu = () => <Icon><path d="M4 6h16M4 12h16M4 18h16" /></Icon>;
export const Close = () => <Icon><path d="M6 6l12 12M18 6L6 18" /></Icon>;
export const Dots = () => <Icon><path d="M5 12h.01M12 12h.01M19 12h.01" stroke-width="3" /></Icon>;
export const Up = () => <Icon><path d="M12 19V5M6 11l6-6 6 6" /></Icon>;
export const Down = () => <Icon><path d="M12 5v14M6 13l6 6 6-6" /></Icon>;
export const Square = () => <Icon><rect x="7" y="7" width="10" height="10" rx="1.5" fill="currentColor" /></Icon>;
export const Left = () => <Icon><path d="M15 6l-6 6 6 6" /></Icon>;
export const Right = () => <Icon><path d="M9 6l6 6-6 6" /></Icon>;
export const Pen = () => <Icon><path d="M4 20h4L19 9l-4-4L4 16v4zM13 7l4 4" /></Icon>;
export const Again = () => <Icon><path d="M20 12a8 8 0 1 1-2.5-5.8M20 4v5h-5" /></Icon>;
export const Onward = () => <Icon><path d="M5 12h12M12 6l6 6-6 6" /></Icon>;
export const Copy = () => <Icon><rect x="9" y="9" width="11" height="11" rx="2" /><path d="M5 15V6a2 2 0 0 1 2-2h9" /></Icon>;
export const Check = () => <Icon><path d="M5 13l4 4L19 7" /></Icon>;
export const Sliders = () => <Icon><path d="M4 7h9M17 7h3M4 17h3M11 17h9" /><circle cx="15" cy="7" r="2" /><circle cx="9" cy="17" r="2" /></Icon>;
export const Braces = () => <Icon><path d="M9 4c-3 0-2 3-2 5s-2 3-3 3c1 0 3 1 3 3s-1 5 2 5M15 4c3 0 2 3 2 5s2 3 3 3c-1 0-3 1-3 3s1 5-2 5" /></Icon>;
export const Question = () => <Icon><path d="M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01" /></Icon>;
export const Sun = () => <Icon><circle cx="12" cy="12" r="4" /><path d="M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M18.4 5.6L17 7M7 17l-1.4 1.4" /></Icon>;
export const Moon = () => <Icon><path d="M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z" /></Icon>;
export const HalfSun = () => <Icon><circle cx="12" cy="12" r="8" /><path d="M12 4a8 8 0 0 1 0 16z" fill="currentColor" /></Icon>;
