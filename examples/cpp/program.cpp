// Runs a program that `portrt.save` wrote, without Python and without torch.
//   c++ program.cpp $(portrt cpp flags --without-torch) -o run
//   ./run model.pt2 INPUTS OUTPUTS
// INPUTS has a line for each input: a file with its bytes, and its sizes where the program takes
// several, such as "x.bin 2 8"; OUTPUTS.0, OUTPUTS.1, ... get the bytes of the outputs.
#include <portrt/program.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

int main(int count, char** paths) {
  if (count != 4) {
    std::cerr << "usage: run MODEL INPUTS OUTPUTS\n";
    return 2;
  }
  try {
    const portrt::Program program(paths[1]);
    std::ifstream lines(paths[2]);
    std::vector<std::vector<char>> data;
    std::vector<std::vector<int64_t>> sizes;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string name;
      words >> name;
      std::ifstream file(name, std::ios::binary);
      data.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      sizes.emplace_back(std::istream_iterator<int64_t>(words), std::istream_iterator<int64_t>());
    }
    std::vector<portrt::Argument> inputs;
    for (size_t index = 0; index < data.size(); ++index) {
      const bool is_known = index < program.inputs().size();
      const portrt::DType dtype = is_known ? program.inputs()[index].dtype : portrt::DType::float32;
      inputs.push_back({dtype, sizes[index].data(), sizes[index].size(), data[index].data()});
    }
    std::vector<portrt::Result> results = program.run(inputs);
    for (size_t index = 0; index < results.size(); ++index) {
      std::cout << program.outputs()[index].name;
      for (int64_t size : results[index].sizes()) std::cout << " " << size;
      std::cout << "\n";
      std::ofstream(std::string(paths[3]) + "." + std::to_string(index), std::ios::binary)
          .write(static_cast<const char*>(results[index].data()), results[index].bytes());
    }
  } catch (const portrt::Error& error) {
    std::cerr << portrt::error_name(error.code()) << ": " << error.what() << "\n";
    return 1;
  }
}
