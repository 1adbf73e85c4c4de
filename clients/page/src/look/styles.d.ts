/** Styles are bundled by their imports, which give nothing. */
declare module "*.css";
