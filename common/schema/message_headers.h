#pragma once

// Headers of every message on `<prefix>.updates.>` (docs/stream.md); publishd sets them, readers may rely on
// them.
namespace arancini::schema {

inline constexpr char kHeaderFormat[] = "Arancini-Format";      // "update-v1", "update-v1-concat", "batch-v2"
inline constexpr char kHeaderSchema[] = "Arancini-Schema";      // version of update.capnp, kSchemaVersion
inline constexpr char kHeaderInstance[] = "Arancini-Instance";  // [instance] name
inline constexpr char kHeaderWriter[] = "Arancini-Writer";      // writer id, 32 hex digits
inline constexpr char kHeaderShard[] = "Arancini-Shard";        // number of the shard that owns the ring
inline constexpr char kHeaderFirst[] = "Arancini-First";        // sequence of the first update in the message
inline constexpr char kHeaderLast[] = "Arancini-Last";          // and of the last
inline constexpr char kHeaderCount[] = "Arancini-Count";        // updates in the message

// Of messages on `<prefix>.events.>` beside Format, Schema, Instance, Writer and Shard.
inline constexpr char kHeaderEvent[] = "Arancini-Event";  // sequence of the event within its writer
inline constexpr char kHeaderAfter[] =
    "Arancini-After";  // stream sequence: the updates before it are at or below

inline constexpr char kSchemaVersion[] = "1";

}  // namespace arancini::schema
