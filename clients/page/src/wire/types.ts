/** What the server's API says about chats and answers: docs/api.md, "Chats" and "Responses". */

export type ItemStatus = "in_progress" | "completed" | "incomplete";
export type AnswerStatus =
  | "queued"
  | "in_progress"
  | "completed"
  | "failed"
  | "cancelled"
  | "incomplete";

export interface TextPart {
  type: "output_text" | "input_text" | "reasoning_text" | "summary_text" | "text" | "refusal";
  text: string;
}

/** What somebody says. Items that were sent as a text have a text for content. */
export interface MessageItem {
  type: "message";
  id: string;
  role: "user" | "assistant" | "system" | "developer";
  status?: ItemStatus;
  content: TextPart[] | string;
}

/** What the model thought before it answered. */
export interface ReasoningItem {
  type: "reasoning";
  id: string;
  status?: ItemStatus;
  summary: TextPart[];
  content?: TextPart[] | null;
}

/** A call of a tool. arguments: JSON as the model writes it, so perhaps not whole yet. */
export interface FunctionCallItem {
  type: "function_call";
  id: string;
  status?: ItemStatus;
  call_id: string;
  name: string;
  namespace?: string;
  arguments: string;
}

/** A call of a tool that takes one text. */
export interface CustomCallItem {
  type: "custom_tool_call";
  id: string;
  status?: ItemStatus;
  call_id: string;
  name: string;
  namespace?: string;
  input: string;
}

/** What a tool gave. In an answer that is shown it stands behind its call. */
export interface CallOutputItem {
  type: "function_call_output" | "custom_tool_call_output";
  id: string;
  status?: ItemStatus;
  call_id: string;
  output: TextPart[] | string;
}

export type OutputItem =
  | MessageItem
  | ReasoningItem
  | FunctionCallItem
  | CustomCallItem
  | CallOutputItem;

/** How long what took, in seconds; null for what has not happened, or was not measured. */
export interface Timing {
  queue_seconds: number | null;
  first_token_seconds: number | null;
  reasoning_seconds: number | null;
  total_seconds: number | null;
}

export interface Usage {
  input_tokens: number;
  input_tokens_details: { cached_tokens: number };
  output_tokens: number;
  output_tokens_details: { reasoning_tokens: number };
  total_tokens: number;
}

export interface Failure {
  code: string;
  message: string;
}

/**
 * One turn of a chat. response_id: the response that it belongs to. versions: a response for each
 * version of this turn. status, usage, error, timing: of an answer; null for what was asked.
 */
export interface Message {
  id: string;
  role: "user" | "assistant" | "tool";
  response_id: string;
  created_at: number;
  items: OutputItem[];
  versions: string[];
  status: AnswerStatus | null;
  usage: Usage | null;
  error: Failure | null;
  timing?: Timing | null;
}

/** A tool that the model may call; its result comes from whoever develops with the page. */
export interface FunctionTool {
  type: "function";
  name: string;
  description?: string;
  parameters?: Record<string, unknown>;
  strict?: boolean;
}

/** Fields of a response that every message of a chat has; named as the API names them. */
export interface Settings {
  instructions?: string;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
  max_output_tokens?: number;
  seed?: number;
  stop?: string[];
  reasoning?: { effort: string };
  text?: { format: Record<string, unknown> };
  tools?: FunctionTool[];
  [name: string]: unknown;
}

/** A chat as the list has it. title: null for an empty chat without one. */
export interface ChatSummary {
  id: string;
  object: "chat";
  created_at: number;
  updated_at: number;
  title: string | null;
  is_titled: boolean;
  settings: Settings;
  leaf: string | null;
}

/** running: responses that are being made. messages: those of the branch that is shown. */
export interface Chat extends ChatSummary {
  running: string[];
  messages: Message[];
}

/** A page of a list. */
export interface Listed<T> {
  object: "list";
  data: T[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

/** The response object, as far as the page reads it. */
export interface ResponseObject {
  id: string;
  object: "response";
  status: AnswerStatus;
  error: Failure | null;
  incomplete_details: { reason: string } | null;
  output: OutputItem[];
  usage: Usage | null;
}

interface Placed {
  sequence_number: number;
  output_index: number;
}

/** Events of a stream that change what is shown. Others are passed over. */
export type StreamEvent =
  | { type: "queue.position"; position: number }
  | {
      type:
        | "response.created"
        | "response.queued"
        | "response.in_progress"
        | "response.completed"
        | "response.incomplete"
        | "response.failed";
      sequence_number: number;
      response: ResponseObject;
    }
  | (Placed & {
      type: "response.output_item.added" | "response.output_item.done";
      item: OutputItem;
    })
  | (Placed & {
      type: "response.content_part.added" | "response.content_part.done";
      content_index: number;
      part: TextPart;
    })
  | (Placed & {
      type: "response.output_text.delta" | "response.reasoning_text.delta";
      content_index: number;
      delta: string;
    })
  | (Placed & {
      type: "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta";
      delta: string;
    });
