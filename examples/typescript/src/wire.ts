/** The messages of the contract and of this service: loaded from the .proto files, with the types that were generated from them. */

import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition, type PackageDefinition, type ProtobufTypeDefinition } from "@grpc/proto-loader";

import type { ProtoGrpcType as CoordinatorProtos } from "./generated/coordinator.js";
import type { FileDescriptorProto } from "./generated/google/protobuf/FileDescriptorProto.js";
import type { ErrorInfo, ErrorInfo__Output } from "./generated/google/rpc/ErrorInfo.js";
import type { Status, Status__Output } from "./generated/google/rpc/Status.js";
import type { ProtoGrpcType as ParticipantProtos } from "./generated/participant.js";
import type { ExecuteResponse, ExecuteResponse__Output } from "./generated/saga/v1/ExecuteResponse.js";

/** A payload with the name of its type. */
export interface Payload {
  readonly type_url: string;
  readonly value: Buffer;
}

/** One message type, to bytes and back. */
export interface Codec<InT, OutT> {
  /** Full name. Example: "loyalty.v1.RedeemPoints". */
  readonly name: string;
  encode(message: InT): Buffer;
  /** Throws if the bytes are no such message. */
  decode(bytes: Buffer): OutT;
}

const PROTOS = [new URL("../protos", import.meta.url), new URL("../../../protos", import.meta.url)].map((url) => fileURLToPath(url));

// Names of fields are kept as they stand in the files: the descriptors that Describe tells are made from what is loaded here, and
// expressions of saga definitions are checked against them.
const OPTIONS = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true, includeDirs: PROTOS };

const contract = loadSync(["saga/v1/participant.proto", "saga/v1/coordinator.proto", "google/rpc/error_details.proto"], OPTIONS);
const business = loadSync("loyalty/v1/loyalty.proto", OPTIONS);

const loaded = grpc.loadPackageDefinition(contract) as unknown as ParticipantProtos & CoordinatorProtos;

export const ParticipantService = loaded.saga.v1.ParticipantService;
export const SagaService = loaded.saga.v1.SagaService;

export const executeResponse = codecIn<ExecuteResponse, ExecuteResponse__Output>(contract, "saga.v1.ExecuteResponse");
export const status = codecIn<Status, Status__Output>(contract, "google.rpc.Status");
export const errorInfo = codecIn<ErrorInfo, ErrorInfo__Output>(contract, "google.rpc.ErrorInfo");

/** A message type of this service. */
export function businessCodec<InT, OutT>(name: string): Codec<InT, OutT> {
  return codecIn<InT, OutT>(business, name);
}

/** The files that hold the message types of this service, each after its imports, for Describe. */
export function businessFiles(): FileDescriptorProto[] {
  const [first] = Object.values(business) as ProtobufTypeDefinition[]; // each names all the files that were loaded
  // Without defaults: what is not set in a descriptor must not be set to a default either.
  const descriptors = loadSync("google/protobuf/descriptor.proto", { keepCase: true, enums: String });
  const codec = codecIn<FileDescriptorProto, FileDescriptorProto>(descriptors, "google.protobuf.FileDescriptorProto");
  return (first?.fileDescriptorProtos ?? []).map((file) => codec.decode(file));
}

export function pack<InT>(codec: Codec<InT, unknown>, message: InT): Payload {
  return { type_url: `type.googleapis.com/${codec.name}`, value: codec.encode(message) };
}

/** The full name of the type of a payload: what stands behind the last slash. */
export function typeNameOf(payload: Payload): string {
  return payload.type_url.slice(payload.type_url.lastIndexOf("/") + 1);
}

function codecIn<InT, OutT>(definitions: PackageDefinition, name: string): Codec<InT, OutT> {
  const definition = definitions[name];
  if (definition === undefined || !("serialize" in definition)) {
    throw new Error(`expected a message ${name} in the .proto files, found none`);
  }
  const { serialize, deserialize } = definition as unknown as MessageTypeDefinition<InT, OutT>;
  return { name, encode: (message) => serialize(message), decode: (bytes) => deserialize(bytes) };
}
