// Reader of .pt2 archives, in a mapped file or inside another archive; nothing is copied.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/format/json.h"

namespace portrt {

// Names of records in an archive that torch.export.save wrote.
inline constexpr const char* kModelRecord = "models/model.json";
inline constexpr const char* kConstantsFolder = "data/constants/";
inline constexpr const char* kWeightsFolder = "data/weights/";
inline constexpr const char* kConstantsConfig = "data/constants/model_constants_config.json";
inline constexpr const char* kWeightsConfig = "data/weights/model_weights_config.json";

constexpr size_t kMaxRecords = 100'000;
constexpr uint64_t kMaxJsonBytes = uint64_t{1} << 30;

// A stored record: its place in the archive, and the CRC-32 of its bytes by the zip directory.
struct Record {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint32_t crc = 0;
};

class Archive {
 public:
  using Records = std::map<std::string, Record, std::less<>>;

  // Read the directory.
  //   data: the archive, which the caller keeps
  //   label: what it is, for messages, such as its path
  // Throws Error (load): it is no zip file, cut short, or none of torch.export.
  Archive(const void* data, uint64_t size, std::string label);

  const std::string& label() const { return label_; }
  // The folder that is around all records.
  const std::string& root() const { return root_; }
  // By name, without the root folder.
  const Records& records() const { return records_; }

  bool has(std::string_view name) const { return records_.find(name) != records_.end(); }
  // Throws Error (load) where there is none of that name.
  const Record& record(std::string_view name) const;
  // The bytes of a record, in place and unchecked.
  std::string_view bytes(const Record& record) const;
  // The bytes of a record of at most that size, with their CRC-32 checked.
  std::string_view read(std::string_view name, uint64_t max_bytes = kMaxJsonBytes) const;
  // A record as strict JSON.
  Json json(std::string_view name) const;

 private:
  const uint8_t* data_;
  uint64_t size_;
  std::string label_, root_;
  Records records_;
};

}  // namespace portrt
